"""Attribution: what drives expected returns, risks and portfolios, in parts that add up."""
