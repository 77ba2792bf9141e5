"""The link between a process and the one that records it: that one decides and answers, and this one sends."""
