"""Where artifacts' bytes lie: disks, Google Cloud Storage, S3-compatible stores, Artifactory."""
