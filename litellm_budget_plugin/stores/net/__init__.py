"""The parts that all stores on a server share."""
