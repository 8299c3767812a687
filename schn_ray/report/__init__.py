"""Pages for people: runs, evaluations, searches and checks as HTML."""
