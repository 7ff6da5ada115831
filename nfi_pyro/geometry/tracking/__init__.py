"""Following a portfolio over dates: figures by date, a regime alarm, rebalancing."""
