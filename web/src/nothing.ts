// Stands for modules that NiiVue could load for formats that this page never opens.
export default null;
