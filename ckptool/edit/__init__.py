"""Operations resolved into a plan, and the plan written as a new file."""
