"""What finds errors in these rows: canaries, the choice among detectors, how sure it is, and how to mend."""
