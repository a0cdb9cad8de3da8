"""What each exercise asks: the cases, the mistakes and the hints of its functions, a file for each file of solutions."""
