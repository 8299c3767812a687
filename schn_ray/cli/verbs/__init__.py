"""The verbs as Python functions, one file for each file of commands.

``import schn_ray`` offers them, and the command line calls them: both do the same. A parameter
has the name of the option, with underscores. Modules are imported inside the functions, so that
``schn-ray --help`` and ``import schn_ray`` stay quick.
"""
