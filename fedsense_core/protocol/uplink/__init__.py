"""The way of an update from client to server, stage by stage."""
