"""The exporter over the database: collected in the background, scraped from memory."""
