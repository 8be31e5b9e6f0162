curl --location --request GET 'https://api.1nce.com/management-api/v1/integrate/clouds'
