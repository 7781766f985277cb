"""Finds, verifies and fetches what the host has released; installs nothing.

marks       the versions seen so far, kept where a pulled plug does not reach them
clock       which time counts on a board whose clock may be wrong
documents   tuf's client, with our time and our fsync
download    a release file: resumed, capped, hashed as it comes
client      the way from the host's address to a verified file
"""
