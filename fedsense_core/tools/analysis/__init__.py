"""How flat the global model is, and how far the clients' models are from it."""
