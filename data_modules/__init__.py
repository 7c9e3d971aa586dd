"""The data: one LightningDataModule per dataset."""
