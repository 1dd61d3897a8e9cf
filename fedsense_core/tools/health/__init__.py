"""What people see of a federation: its state, its log, what is wrong before it starts, and what it
will cost."""
