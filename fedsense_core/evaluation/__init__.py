"""How good an encoder is: nearest neighbours and a linear probe on labelled chips."""
