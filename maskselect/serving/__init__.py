"""The web page, its API, and X-AnyLabeling's remote protocol: `maskselect serve`."""
