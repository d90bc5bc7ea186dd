"""Reports on finished runs: tables, figures, a self-contained HTML page, and MLflow. Reads runs, never models."""
