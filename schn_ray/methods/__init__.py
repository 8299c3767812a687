"""How codes are learned: the method protocol, losses, centres, the table of codes."""
