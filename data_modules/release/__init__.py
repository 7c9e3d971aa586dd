"""What lies in a licensed folder: which release, its annotation sheet, its clips, and what is wrong with them."""
