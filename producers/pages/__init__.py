"""Pages of customers: where the links of e-mails lead. Rendered here, without any script."""
