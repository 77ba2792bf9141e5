"""The report: a page of a run, or of two side by side, and the checklist of a published study."""
