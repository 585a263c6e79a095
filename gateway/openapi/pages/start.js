SwaggerUIBundle({
  dom_id: "#reference",
  url: "openapi.json",
  validatorUrl: "none",
  deepLinking: true,
  docExpansion: "none",
  filter: true,
  tryItOutEnabled: true,
  persistAuthorization: false,
});
