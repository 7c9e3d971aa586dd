"""The data: one LightningDataModule per dataset, chosen by name."""

DATASETS = {
    "flow_maps": "data_modules.flow_maps.FlowMaps",
    "synthetic": "data_modules.synthetic.Synthetic",
}
