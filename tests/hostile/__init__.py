"""Files built to fool or to exhaust whoever reads them."""
