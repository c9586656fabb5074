"""The Prefect server, its UI, its worker, and the deployments registered there."""
