"""Turns a TFLite file that someone already deploys back into a float network that can be trained."""
