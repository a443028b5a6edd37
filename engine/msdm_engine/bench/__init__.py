"""``msdm-engine bench``: what a bundle yields on this machine, and how near that is to the machine's own limit."""
