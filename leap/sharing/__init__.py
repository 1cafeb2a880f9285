"""A learned initialization as a folder to share: what lies in it, its model card, and its networks in plain torch."""
