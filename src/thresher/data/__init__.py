"""Where rows come from, what their columns mean, and how they become encoded examples."""
