"""The shell around the learner: what touches the machine it runs on."""
