"""What hosts a session, behind one small interface; no other room talks to a terminal server."""
