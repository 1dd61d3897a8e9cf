"""FedSense: one remote-sensing foundation model from many institutions that share no imagery."""
