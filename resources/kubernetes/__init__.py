"""The compute and serving seams on Kubernetes: work orders as Jobs, served versions as Deployments."""
