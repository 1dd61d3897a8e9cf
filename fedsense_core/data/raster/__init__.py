"""From files to arrays of pixels."""
