"""An album: what ``build`` makes of photos, with the directories of the other verbs inside it."""
