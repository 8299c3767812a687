"""Who is query, gallery and training row: protocols, their checks, the audit."""
