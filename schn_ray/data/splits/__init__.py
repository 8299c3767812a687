"""Which rows are queries, gallery and training: protocols, given splits, and the audit."""
