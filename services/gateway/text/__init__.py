"""Language models at the gateway: one way through the system, and the faces that clients know it by."""
