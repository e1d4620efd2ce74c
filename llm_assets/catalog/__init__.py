"""What people write: base models, models, tenants, experiments, and where datasets land."""
