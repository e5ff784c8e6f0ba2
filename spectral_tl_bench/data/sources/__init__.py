"""Where the published data sets are to be had: what is known of each, fetching, unpacking, putting into place."""
