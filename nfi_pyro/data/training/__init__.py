"""From a panel to tensors: transforms fitted on training dates, and date-major windows."""
