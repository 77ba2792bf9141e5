"""Does a recording replay? The program runs again, with answers held back, and must do the same."""
