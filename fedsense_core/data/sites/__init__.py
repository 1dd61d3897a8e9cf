"""What an institution says of its imagery: site files, sensor cards, lists of scenes."""
