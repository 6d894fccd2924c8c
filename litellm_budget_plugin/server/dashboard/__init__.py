"""The dashboard: pages made by the server, for people with a browser and a key."""
