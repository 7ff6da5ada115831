"""What is wrong with prices, and whether anything looks ahead: findings, ledgers, audits."""
