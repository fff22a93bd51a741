"""Which pages of my memory were written since I last asked?"""
