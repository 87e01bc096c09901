"""The curation report, and the page that all reports share."""
