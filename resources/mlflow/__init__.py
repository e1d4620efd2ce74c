"""MLflow: its server on this machine, and the registry of versions, trainings and traffic in it."""
