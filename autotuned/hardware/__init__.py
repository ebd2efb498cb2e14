"""What the operating system tells of the machine."""
