"""Who may trade what and when: price limits, masks and universes known at the close."""
